"""All operators, in a fixed order: a seed means the same mutants as long as none is added."""

from tests.mutation import content_defects, fill_defects, message_defects, schema_defects, shape_defects
from tests.mutation.operator import Operator, mutate

__all__ = ["OPERATORS", "Operator", "mutate"]

OPERATORS: list[Operator] = [
    *fill_defects.DEFECTS,
    *shape_defects.DEFECTS,
    *content_defects.DEFECTS,
    *message_defects.DEFECTS,
    *schema_defects.DEFECTS,
]
