"""Provenance: what each training image was made of, and which images are left out."""
