loss = dict(type='lossreg.LabelSmoothLoss', label_smooth_val=0.1)
