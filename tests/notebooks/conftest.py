"""Makes the helpers of the unit tests importable: ``flow_rows`` and ``shop_flows``."""

import sys
from pathlib import Path

_unit = Path(__file__).parents[1] / "unit"
for _folder in (_unit, _unit / "figures"):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))
