"""An adapter as people's repositories have it: the older style, pandas, scikit-learn, a model for each
session, variables for what the steps leave to each other."""

import numpy as np
import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from snakepit_bridge.adapters.base import BaseAdapter
from snakepit_bridge.session_context import SessionContext


class DataScienceAdapter(BaseAdapter):
    def __init__(self):
        super().__init__()
        self.session_context = None
        self.frames = {}
        self.models = {}

    def set_session_context(self, session_context: SessionContext):
        self.session_context = session_context

    @property
    def session(self):
        return self.session_context.session_id

    async def execute_load_data(self, args):
        ctx = self.session_context
        iris = load_iris(as_frame=True)
        frame = iris.frame.sample(frac=args.get("fraction", 1.0), random_state=0)
        self.frames[self.session] = frame
        await ctx.register_variable("data_shape", "list", list(frame.shape))
        await ctx.register_variable("columns", "list", list(frame.columns), constraints={"min_length": 1})
        await ctx.register_variable("test_size", "float", 0.3, constraints={"min": 0.1, "max": 0.9})
        return {"shape": frame.shape, "columns": list(frame.columns), "head": frame.head(3)}

    def execute_preprocess(self, args):
        ctx = self.session_context
        frame = self.frames[self.session].dropna()
        features = frame.drop(columns=["target"])
        scaled = pd.DataFrame(
            StandardScaler().fit_transform(features), columns=features.columns, index=features.index
        )
        self.frames[self.session] = scaled.assign(target=frame["target"])
        ctx.update_variable("data_shape", list(scaled.shape))
        return {"rows": len(scaled), "means": scaled.mean().round(6).abs().to_dict()}

    async def execute_train_model(self, args):
        ctx = self.session_context
        test_size = await ctx.get_variable("test_size")
        frame = self.frames[self.session]
        features, target = frame.drop(columns=["target"]), frame["target"]
        x_train, x_test, y_train, y_test = train_test_split(
            features, target, test_size=test_size, random_state=0
        )
        model = LogisticRegression(max_iter=500, C=args.get("C", 1.0)).fit(x_train, y_train)
        self.models[self.session] = model
        accuracy = model.score(x_test, y_test)
        await ctx.register_variable("accuracy", "float", accuracy, constraints={"min": 0, "max": 1})
        await ctx.register_variable("weights", "tensor", model.coef_)
        return {"accuracy": accuracy, "tested": len(x_test), "classes": model.classes_}

    def execute_predict(self, args):
        model = self.models[self.session]
        return {"labels": model.predict(np.asarray(args["rows"])), "trained": sorted(self.models)}

    def execute_summary(self, args):
        found = self.session_context.list_variables("*a*")
        return {one["name"]: one["type"] for one in found}
