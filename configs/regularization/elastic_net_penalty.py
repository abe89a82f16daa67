loss = dict(type='lossreg.ElasticNetPenalty')
