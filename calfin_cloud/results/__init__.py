"""From stored fronts, or those of any product, to science: series in time, comparisons."""

from calfin_cloud.results.comparison import compare_products, summarise_pairs, write_comparison
from calfin_cloud.results.series import Lines, Series, measure_series, read_lines, store_product, write_series

__all__ = [
    "Lines",
    "Series",
    "compare_products",
    "measure_series",
    "read_lines",
    "store_product",
    "summarise_pairs",
    "write_comparison",
    "write_series",
]
