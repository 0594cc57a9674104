"""Training by command: from the words of ``yolo-stable train`` to a finished run."""
