"""Background work: what is known about each job, the queue that runs them one by one, the process that does one."""
