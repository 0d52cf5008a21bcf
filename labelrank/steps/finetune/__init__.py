"""Fine-tune: from features, or names, to results; shared by `labelrank finetune` and the fine-tune job.

`finetune` takes open arrays, datasets and encoders; this package opens them. It plans and estimates a comparison, keeps
finished runs, and writes and reads results as plain files. Pages need only some of its modules, so nothing is imported
here.
"""
