loss = dict(type='lossreg.FocalHeatmapLoss', loss_weight=4.0)
