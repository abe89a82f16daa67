loss = dict(type='lossreg.MarginRankingLoss')
