"""Brings a checkpoint onto this machine: from the hub, an S3 bucket, an rsync server or a folder."""
