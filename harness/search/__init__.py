"""The search for knobs without anomalies: studies, stages, trials, choices."""
