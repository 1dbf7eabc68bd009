"""What the scripts at the top of tools/ do: training and testing with mmdet, and comparing losses."""
