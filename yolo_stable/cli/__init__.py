"""The command ``yolo-stable``: one verb in each file; none imports anything heavy before it runs."""
