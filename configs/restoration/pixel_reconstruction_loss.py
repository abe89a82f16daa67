loss = dict(type='lossreg.PixelReconstructionLoss', criterion='L2')
