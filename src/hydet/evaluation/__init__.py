"""Evaluation: ``evaluate`` runs a model over a loader, evaluators compute metrics from its results."""

from .coco import CocoEvaluator
from .coco_results import results_to_coco_json
from .evaluate import evaluate
from .evaluator import Evaluator
from .lvis import LvisEvaluator
from .panoptic import PanopticEvaluator
from .proposals import ProposalEvaluator
from .rotated import RotatedCocoEvaluator
from .semantic import SemanticEvaluator

__all__ = [
    "CocoEvaluator",
    "Evaluator",
    "LvisEvaluator",
    "PanopticEvaluator",
    "ProposalEvaluator",
    "RotatedCocoEvaluator",
    "SemanticEvaluator",
    "evaluate",
    "results_to_coco_json",
]
