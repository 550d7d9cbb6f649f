"""The audit: holds everything on the disk against what was signed. Reads only; needs no running service."""

from distill.engine.audit.audit import AuditOptions, audit

__all__ = ["AuditOptions", "audit"]
