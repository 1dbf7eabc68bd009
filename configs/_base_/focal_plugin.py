"""Registers the fused losses and checks, before the first iteration, that heads and losses fit together."""

custom_imports = dict(imports=['focal_plugin'], allow_failed_imports=False)
custom_hooks = [dict(type='FusedLossCheckHook')]
