loss = dict(type='lossreg.RazorL1Loss')
