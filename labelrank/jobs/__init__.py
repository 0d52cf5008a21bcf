"""Background work: the job database, the queue that runs jobs one by one, and the process that does one job."""
