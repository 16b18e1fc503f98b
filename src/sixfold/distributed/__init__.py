"""Where functions run and how ranks talk: engines, process groups, tasks, collectives."""
