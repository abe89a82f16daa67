loss = dict(type='lossreg.RazorL2Loss')
