"""The metrics of faithfulness: whether maps say what the model does."""

from __future__ import annotations

from wordlight.comparisons.metrics import (
    faithfulness_infidelity,
    faithfulness_order,
    faithfulness_removal,
    faithfulness_sensitivity,
)

#: In the order of tables.
METRICS = (
    *faithfulness_order.METRICS,
    *faithfulness_removal.METRICS,
    *faithfulness_infidelity.METRICS,
    *faithfulness_sensitivity.METRICS,
)
