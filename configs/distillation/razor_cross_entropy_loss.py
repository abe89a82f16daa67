loss = dict(type='lossreg.RazorCrossEntropyLoss')
