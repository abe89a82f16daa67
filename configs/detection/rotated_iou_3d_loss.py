loss = dict(type='lossreg.RotatedIoU3DLoss')
