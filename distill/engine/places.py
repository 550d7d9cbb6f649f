"""Where things lie below the data folder: the names that more than one part of distill goes by."""

from typing import Final

LOG: Final = "log"
IMPORTS: Final = "imports"
"""Files of other systems, in a folder for each source."""
DATASETS: Final = "datasets"
REPLAYS: Final = "replays"

MANIFEST: Final = "manifest.json"
"""In the folder of a dataset or a replay, and written last: one that has it is finished."""
RECEIPT: Final = "receipt.dsse.json"
"""In the folder of a dataset: the receipt of the run that made it."""
TASKS: Final = "tasks.jsonl"
"""In the folder of a replay: its results."""
