"""Verdicts: the rules of each kind, what they rest on, and the engine that applies them."""

from validators.engine.basis import Basis, BasisSource, FixedBasis, Rules
from validators.engine.core import Asked, Engine, Judgement
from validators.engine.email import EmailValidator
from validators.engine.fill import FillValidator
from validators.engine.json_schema import JsonSchemaValidator
from validators.engine.keeper import Keeper, PolicyFile
from validators.engine.metrics import Metrics
from validators.engine.plugins import PluggedValidator, Plugin, UnusableValidator, ValidatorFailed, installed
from validators.engine.policy import BrokenPolicy, Policy
from validators.engine.pool import Threads, Turns
from validators.engine.sms import SmsValidator
from validators.engine.validator import Validator

__all__ = [
    "Asked",
    "Basis",
    "BasisSource",
    "BrokenPolicy",
    "EmailValidator",
    "Engine",
    "FillValidator",
    "FixedBasis",
    "JsonSchemaValidator",
    "Judgement",
    "Keeper",
    "Metrics",
    "PluggedValidator",
    "Plugin",
    "Policy",
    "PolicyFile",
    "Rules",
    "SmsValidator",
    "Threads",
    "Turns",
    "UnusableValidator",
    "Validator",
    "ValidatorFailed",
    "installed",
]
