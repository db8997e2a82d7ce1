"""The migration itself: survey, plan, apply, report."""
