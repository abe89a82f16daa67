loss = dict(type='lossreg.YOLOIoULoss', iou_mode='ciou', bbox_format='xyxy', loss_weight=7.5, return_iou=False)
