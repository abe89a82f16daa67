loss = dict(type='lossreg.AlphaIoULoss', alpha=3.0, mode='iou')
