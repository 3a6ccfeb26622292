"""Does it help: recipe, plan, execution, statistics, report."""
