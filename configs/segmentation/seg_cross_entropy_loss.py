loss = dict(type='lossreg.SegCrossEntropyLoss', avg_non_ignore=True, ignore_index=255)
