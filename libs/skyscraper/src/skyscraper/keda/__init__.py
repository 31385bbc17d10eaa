"""KEDA's interface of an external scaler: generated code."""
