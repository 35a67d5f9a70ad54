"""A user's data-science adapter in the older style runs as it stands, with its variables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snakepit_ray.testing import FakePool

pytest.importorskip("sklearn")
ADAPTER = Path(__file__).parents[1] / "adapters" / "data_science.py"


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_the_steps_of_two_sessions_leave_their_models_and_variables_apart() -> None:
    with FakePool(adapter=f"{ADAPTER}:DataScienceAdapter") as pool:
        for name, fraction in (("whole", 1.0), ("half", 0.5)):
            session = pool.session(name)
            loaded = session.execute("load_data", {"fraction": fraction})
            assert loaded["shape"] == [round(150 * fraction), 5] and loaded["columns"][-1] == "target"
            assert session.variables.get("data_shape") == loaded["shape"]
            session.variables.set("test_size", 0.2)
            assert set(session.execute("preprocess")["means"].values()) == {0.0}
            trained = session.execute("train_model")
            assert trained["tested"] == round(150 * fraction * 0.2)
            assert session.variables.get("accuracy") == trained["accuracy"] > 0.8
            weights = session.variables.get("weights")
            assert weights.shape == (3, 4) and weights.dtype == np.float64
        predicted = pool.session("half").execute("predict", {"rows": np.zeros((2, 4))})
        assert predicted["trained"] == ["half", "whole"] and len(predicted["labels"]) == 2
        assert pool.session("half").execute("summary") == {"accuracy": "float", "data_shape": "list"}
