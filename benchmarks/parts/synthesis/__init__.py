"""Anomalies made of normal images alone (LafitE, section 3.4)."""
