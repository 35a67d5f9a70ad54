"""A user's adapter: learns handwritten digits and keeps what it learnt in the interpreter, one model a
session.

It runs in the pool's interpreters and knows nothing of Ray; scikit-learn is imported there, not in the
driver. One row of three is held back from training.
"""

from snakepit_bridge import Adapter, command


class Digits(Adapter):
    """Models by session id: a session's requests all come to the interpreter that has its model."""

    def setup(self):
        from sklearn.datasets import load_digits

        bunch = load_digits()
        self.pixels = bunch.data / 16.0  # scaled to 0..1
        self.labels = bunch.target
        rows = range(len(self.labels))
        self.unseen = [row for row in rows if row % 3 == 2]
        self.seen = [row for row in rows if row % 3 != 2]
        self.models = {}

    @command(idempotent=True)
    def describe(self):
        """What there is to learn, and the rows that no model is trained on."""
        rows, pixels = self.pixels.shape
        return {"rows": rows, "pixels": pixels, "classes": len(set(self.labels)), "unseen": self.unseen}

    @command(timeout=120.0)
    def train(self, ctx, algorithm: str):
        """Fits this session's model."""
        model = _model(algorithm)
        model.fit(self.pixels[self.seen], self.labels[self.seen])
        self.models[ctx.session_id] = model
        return {"algorithm": algorithm, "rows": len(self.seen)}

    @command(idempotent=True)
    def predict(self, ctx, rows: list):
        """The digit on each of `rows` as this session's model sees it, and the true one."""
        if ctx.session_id not in self.models:
            raise LookupError(f"session {ctx.session_id!r} has no model in this interpreter: train it first")
        found = self.models[ctx.session_id].predict(self.pixels[rows])
        return {"predicted": found, "actual": self.labels[rows]}

    @command(idempotent=True)
    def features(self, rows: list):
        """Ink and its centre for each of `rows`: stateless work that any interpreter does."""
        images = self.pixels[rows].reshape(-1, 8, 8)
        ink = images.sum(axis=(1, 2))
        weight = ink.clip(1e-9)
        return {
            "ink": ink,
            "x": (images.sum(axis=1) @ range(8)) / weight,
            "y": (images.sum(axis=2) @ range(8)) / weight,
        }


def _model(algorithm):
    if algorithm == "logistic":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=500)
    if algorithm == "forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(n_estimators=100, random_state=0)
    raise ValueError(f"algorithm is 'logistic' or 'forest', got {algorithm!r}")
