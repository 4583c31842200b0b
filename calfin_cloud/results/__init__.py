"""From stored fronts, or those of any product, to science: series in time, comparisons, exports, reviews, lineage."""

from calfin_cloud.results.boxes import Lines, cut_to_boxes, move_lines, read_lines
from calfin_cloud.results.comparison import compare_products, summarise_pairs, write_comparison
from calfin_cloud.results.compositing import write_composite
from calfin_cloud.results.deprecated import write_store_report
from calfin_cloud.results.exploring import Explorer, explore
from calfin_cloud.results.exporting import export_store
from calfin_cloud.results.figuring import paper_figures, write_figures
from calfin_cloud.results.fjords import derive_fjords
from calfin_cloud.results.formats import FORMATS
from calfin_cloud.results.labelling import labelled_samples
from calfin_cloud.results.lineage import lineage_of
from calfin_cloud.results.opening import Store, open_store
from calfin_cloud.results.reconciling import reconcile_store
from calfin_cloud.results.reporting import write_report
from calfin_cloud.results.reviewing import (
    apply_verdicts,
    orphaned_verdicts,
    read_verdicts,
    reviewed_fronts,
    usable_fronts,
    write_training_pairs,
)
from calfin_cloud.results.seaward import feature_series, features_of, write_features
from calfin_cloud.results.series import Series, keep_flags, measure_series, store_product, write_series

__all__ = [
    "FORMATS",
    "Explorer",
    "Lines",
    "Series",
    "Store",
    "apply_verdicts",
    "compare_products",
    "cut_to_boxes",
    "derive_fjords",
    "explore",
    "export_store",
    "feature_series",
    "features_of",
    "keep_flags",
    "labelled_samples",
    "lineage_of",
    "measure_series",
    "move_lines",
    "open_store",
    "orphaned_verdicts",
    "paper_figures",
    "read_lines",
    "read_verdicts",
    "reconcile_store",
    "reviewed_fronts",
    "store_product",
    "summarise_pairs",
    "usable_fronts",
    "write_comparison",
    "write_composite",
    "write_features",
    "write_figures",
    "write_report",
    "write_series",
    "write_store_report",
    "write_training_pairs",
]
