"""The terminal that reviewers work at: `stillhouse distill review`."""
