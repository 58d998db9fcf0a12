"""mx-clip: answers machines that boot, and keeps the files of the programs that serve them as the cluster says."""
