"""What went wrong, where and why: incidents on disk, and the operation, the image and the cause behind each."""
