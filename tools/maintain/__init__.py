"""What keeps the repository in order: tests on a GPU and of mmdet, generated text."""
