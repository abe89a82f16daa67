loss = dict(type='lossreg.OhemCrossEntropy', thres=0.9, min_kept=131072)
