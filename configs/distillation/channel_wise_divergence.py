loss = dict(type='lossreg.ChannelWiseDivergence')
