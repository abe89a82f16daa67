"""How the heads of OpenMMLab's packages call their losses: one table, used by exports and checks.

A row names a package, types of its heads and, for each of their options that holds a loss, the arguments of the call.
``tests/openmmlab`` compares the table with the source of every head in it, and with many heads in training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from lossreg.errors import ConfigError
from lossreg.spec import Call, Input, Role, calls_of
from lossreg.unit import as_called

Config = Mapping[str, Any]

UNKNOWN = 'unknown: '
"""The prefix of the place of a head that is not in the table."""


@dataclass(frozen=True)
class Own:
    """A value that a head takes from one of its own options.

    Attributes:
        option: the name of the option.
        default: its default.
    """

    option: str
    default: Any = None

    def of(self, head: Config) -> Any:
        """The value in one head."""
        return head.get(self.option, self.default)


@dataclass(frozen=True)
class Gives:
    """The arguments that a head gives in a call.

    Attributes:
        positional: the number of positional arguments.
        named: the names of tensors and average factors given by name.
        constants: arguments with the same value in every call: the value, or the head's option that holds it. None
            counts as absent.
        shapes: the calls of our losses with the shapes that the head gives; a loss with none of them uses its first.
        if_taken: the names of tensors given only to losses that take them.
        mapped: the option in which the config lists the arguments of each loss.
        when: whether a head with this config makes this call of a loss with this config.
    """

    positional: int
    named: tuple[str, ...] = ()
    constants: Config = field(default_factory=dict)
    shapes: tuple[str, ...] = ()
    if_taken: tuple[str, ...] = ()
    mapped: str = ''
    when: Callable[[Config, Config], bool] = lambda head, loss: True

    def shaped(self, *shapes: str) -> Gives:
        """These arguments, with tensors of other shapes."""
        return replace(self, shapes=shapes)


def always(**constants: Any) -> dict[str, Any]:
    """Arguments with the same value in every call."""
    return constants


@dataclass(frozen=True)
class Row:
    """Heads that call their losses in the same way.

    Attributes:
        package: the package that registers them.
        heads: their types, separated by spaces.
        losses: what they give, by option, for their only call or for each. ``loss[1]`` is the second loss in a list,
            and ``losses.*`` any in a dict.
    """

    package: str
    heads: str
    losses: Mapping[str, Gives | tuple[Gives, ...]]


# (pred, target), with weight by position, avg_factor, or both by name
PLAIN = Gives(2)
WEIGHTED = Gives(3)
AVERAGED = Gives(2, ('avg_factor',))
BOTH = Gives(3, ('avg_factor',))
WEIGHT_NAMED = Gives(2, ('weight',))
BOTH_NAMED = Gives(2, ('weight', 'avg_factor'))
EACH = Gives(2, constants=always(reduction_override='none'))

# a weight for each coordinate of a box
BOXES = BOTH.shaped('coordinate_weights')
# targets like the predictions, not class indices
DENSE = PLAIN.shaped('dense')
DENSE_AVERAGED = AVERAGED.shaped('dense')
DENSE_WEIGHT = WEIGHT_NAMED.shaped('dense')
MAPS = BOTH.shaped('images')

IGNORED = always(ignore_index=Own('ignore_index', 255))
# weights of pixels come from a sampler of hard ones
PIXELS = (
    Gives(2, ('weight',), IGNORED, when=lambda head, loss: bool(head.get('sampler'))),
    Gives(2, (), IGNORED, when=lambda head, loss: not head.get('sampler')),
)
YOLO = {'loss_cls': DENSE, 'loss_bbox': PLAIN, 'loss_obj': DENSE}
# a column of weights, one per box
WEIGHT_COLUMN = ('weight_columns_and_iou', 'weight_columns')


def _skips_crowds(head: Config, loss: Config) -> bool:
    """Whether YOLOv5's head ignores predictions inside boxes marked as ignored."""
    return bool(head.get('ignore_iof_thr', -1.0) != -1.0)


def _skips_none(head: Config, loss: Config) -> bool:
    return not _skips_crowds(head, loss)


def _is_decoded_too(head: Config, loss: Config) -> bool:
    """Whether mmrotate's heads give decoded boxes besides the deltas."""
    return bool(head.get('loss_bbox_type', 'normal') == 'kfiou')


ROTATED_BOXES = (
    replace(BOXES, when=lambda head, loss: not _is_decoded_too(head, loss)),
    Gives(3, ('pred_decode', 'targets_decode', 'avg_factor'), shapes=('coordinate_weights',), when=_is_decoded_too),
)


def _named(*parts: str) -> Callable[[Config, Config], bool]:
    """Whether a loss's ``loss_name`` contains one of these."""
    return lambda head, loss: any(part in str(loss.get('loss_name', '')) for part in parts)


def _of_type(name: str) -> Callable[[Config, Config], bool]:
    """Whether the loss has this type, in any package."""
    return lambda head, loss: str(loss['type']).rpartition('.')[2] == name


def _gan(target_is_real: bool, is_disc: bool) -> Gives:
    return Gives(1, constants=always(target_is_real=target_is_real, is_disc=is_disc))


GAN = (_gan(True, False), _gan(True, True), _gan(False, True))
# the generator's relativistic loss makes a second call
RELATIVISTIC = (_gan(True, False), _gan(False, False), _gan(True, True), _gan(False, True))

DETECTORS = (
    Row(
        'mmdet',
        'BBoxHead ConvFCBBoxHead Shared2FCBBoxHead Shared4Conv1FCBBoxHead DoubleConvFCBBoxHead SCNetBBoxHead '
        'AnchorHead RPNHead StageCascadeRPNHead RetinaHead RetinaSepBNHead FSAFHead PISARetinaHead',
        {'loss_cls': BOTH, 'loss_bbox': BOXES},
    ),
    Row(
        'mmdet',
        'DIIHead DETRHead ConditionalDETRHead DABDETRHead DeformableDETRHead DINOHead DDQDETRHead',
        {'loss_cls': BOTH, 'loss_bbox': BOXES, 'loss_iou': BOXES},
    ),
    Row('mmdet', 'GroundingDINOHead', {'loss_cls': BOTH.shaped('dense'), 'loss_bbox': BOXES, 'loss_iou': BOXES}),
    Row('mmdet', 'MultiInstanceBBoxHead', {'loss_cls': PLAIN, 'loss_bbox': PLAIN}),
    Row(
        'mmdet',
        'SABLHead SABLRetinaHead',
        {'loss_cls': BOTH, 'loss_bbox_cls': BOTH.shaped('dense'), 'loss_bbox_reg': BOTH},
    ),
    Row('mmdet', 'YOLOFHead', {'loss_cls': BOTH, 'loss_bbox': BOTH}),
    Row('mmdet', 'FCNMaskHead CoarseMaskHead HTCMaskHead SCNetMaskHead', {'loss_mask': WEIGHTED}),
    Row('mmdet', 'MaskPointHead', {'loss_point': WEIGHTED}),
    Row('mmdet', 'DynamicMaskHead', {'loss_mask': AVERAGED}),
    # the head passes this option to the loss's constructor, which is equivalent
    Row(
        'mmdet',
        'FusedSemanticHead SCNetSemanticHead',
        {'loss_seg': Gives(2, constants=always(ignore_index=Own('ignore_label')), shapes=('pixels',))},
    ),
    Row('mmdet', 'PanopticFPNHead', {'loss_seg': PLAIN}),
    Row('mmdet', 'GridHead', {'loss_grid': DENSE}),
    Row('mmdet', 'MaskIoUHead', {'loss_iou': PLAIN}),
    Row(
        'mmdet',
        'ATSSHead ATSSVLFusionHead',
        {'loss_cls': BOTH, 'loss_bbox': BOTH_NAMED, 'loss_centerness': DENSE_AVERAGED},
    ),
    Row('mmdet', 'DDODHead', {'loss_cls': BOTH, 'loss_bbox': AVERAGED, 'loss_iou': BOTH.shaped('dense')}),
    Row('mmdet', 'PAAHead', {'loss_cls': BOTH, 'loss_bbox': BOTH, 'loss_centerness': DENSE_AVERAGED}),
    Row('mmdet', 'LADHead', {'loss_cls': BOTH, 'loss_bbox': AVERAGED, 'loss_centerness': DENSE_AVERAGED}),
    Row('mmdet', 'TOODHead', {'initial_loss_cls': BOTH, 'loss_cls': BOTH, 'loss_bbox': BOTH_NAMED}),
    Row('mmdet', 'RTMDetHead RTMDetSepBNHead', {'loss_cls': BOTH, 'loss_bbox': BOTH_NAMED}),
    Row(
        'mmdet',
        'RTMDetInsHead RTMDetInsSepBNHead',
        {'loss_cls': BOTH, 'loss_bbox': BOTH_NAMED, 'loss_mask': AVERAGED},
    ),
    Row(
        'mmdet',
        'GFLHead LDHead',
        {'loss_cls': BOTH_NAMED, 'loss_bbox': BOTH_NAMED, 'loss_dfl': BOTH_NAMED, 'loss_ld': BOTH_NAMED},
    ),
    Row(
        'mmdet',
        'VFNetHead',
        {
            'loss_cls': DENSE_AVERAGED,
            'loss_cls_fl': BOTH_NAMED,
            'loss_bbox': BOTH_NAMED,
            'loss_bbox_refine': BOTH_NAMED,
        },
    ),
    Row(
        'mmdet',
        'FCOSHead NASFCOSHead CondInstBboxHead BoxInstBboxHead',
        {'loss_cls': AVERAGED, 'loss_bbox': BOTH_NAMED, 'loss_centerness': DENSE_AVERAGED},
    ),
    Row('mmdet', 'FoveaHead', {'loss_cls': AVERAGED, 'loss_bbox': BOTH}),
    Row('mmdet', 'AutoAssignHead FreeAnchorRetinaHead', {'loss_bbox': EACH}),
    Row('mmdet', 'CondInstMaskHead BoxInstMaskHead', {'loss_mask': EACH}),
    Row(
        'mmdet',
        'SOLOHead DecoupledSOLOHead DecoupledSOLOLightHead SOLOV2Head',
        {'loss_cls': AVERAGED, 'loss_mask': EACH},
    ),
    Row(
        'mmdet',
        'GuidedAnchorHead GARetinaHead GARPNHead',
        {'loss_cls': BOTH, 'loss_bbox': BOXES, 'loss_shape': BOXES, 'loss_loc': BOTH},
    ),
    Row('mmdet', 'RepPointsHead', {'loss_cls': BOTH, 'loss_bbox_init': BOXES, 'loss_bbox_refine': BOXES}),
    Row('mmdet', 'CenterNetHead', {'loss_center_heatmap': AVERAGED, 'loss_wh': MAPS, 'loss_offset': MAPS}),
    Row(
        'mmdet',
        'CenterNetUpdateHead',
        {'loss_cls': Gives(2, ('pos_inds', 'pos_labels', 'avg_factor')), 'loss_bbox': BOTH_NAMED},
    ),
    Row(
        'mmdet',
        'CornerHead CentripetalHead',
        {
            'loss_heatmap': AVERAGED,
            'loss_embedding': WEIGHTED,
            'loss_offset': MAPS,
            'loss_guiding_shift': MAPS,
            'loss_centripetal_shift': MAPS,
        },
    ),
    Row('mmdet', 'MaskFormerHead', {'loss_cls': BOTH, 'loss_mask': AVERAGED, 'loss_dice': AVERAGED}),
    Row(
        'mmdet',
        'Mask2FormerHead Mask2FormerTrackHead',
        {'loss_cls': BOTH, 'loss_mask': DENSE_AVERAGED, 'loss_dice': AVERAGED},
    ),
    Row(
        'mmdet',
        'YOLACTHead',
        {
            'loss_cls': (
                replace(WEIGHTED, when=lambda head, loss: head.get('use_ohem', True)),
                replace(BOTH, when=lambda head, loss: not head.get('use_ohem', True)),
            ),
            'loss_bbox': BOTH,
        },
    ),
    Row('mmdet', 'YOLACTProtonet', {'loss_segm': DENSE_AVERAGED}),
    Row('mmdet', 'YOLOV3Head', dict.fromkeys(('loss_cls', 'loss_conf', 'loss_xy', 'loss_wh'), DENSE_WEIGHT)),
    Row('mmdet', 'YOLOXHead', {**YOLO, 'loss_l1': PLAIN}),
    Row('mmdet', 'LinearReIDHead', {'loss_cls': PLAIN, 'loss_triplet': PLAIN}),
    Row('mmdet', 'QuasiDenseEmbedHead', {'loss_track': BOTH, 'loss_track_aux': PLAIN}),
    Row('mmdet', 'RoIEmbedHead', {'loss_match': BOTH}),
    Row(
        'mmyolo',
        'YOLOv5Head',
        {
            option: (
                replace(gives, when=_skips_none),
                replace(gives, named=('weight', 'avg_factor'), when=_skips_crowds),
            )
            for option, gives in YOLO.items()
        },
    ),
    Row('mmyolo', 'YOLOv7Head', YOLO),
    Row('mmyolo', 'YOLOv5InsHead', {**YOLO, 'loss_mask': DENSE}),
    Row('mmyolo', 'YOLOXHead', {**YOLO, 'loss_bbox_aux': PLAIN}),
    Row('mmyolo', 'YOLOXPoseHead', {**YOLO, 'loss_bbox_aux': PLAIN, 'loss_pose': Gives(4)}),
    Row(
        'mmyolo',
        'YOLOv6Head PPYOLOEHead',
        {
            'loss_cls': PLAIN.shaped('dense', 'images'),
            'loss_bbox': BOTH_NAMED.shaped(*WEIGHT_COLUMN),
            'loss_dfl': BOTH_NAMED,
        },
    ),
    Row(
        'mmyolo',
        'YOLOv8Head',
        {'loss_cls': DENSE, 'loss_bbox': WEIGHT_NAMED.shaped(*WEIGHT_COLUMN), 'loss_dfl': BOTH_NAMED},
    ),
    Row(
        'mmyolo', 'RTMDetHead RTMDetRotatedHead', {'loss_cls': BOTH, 'loss_bbox': BOTH_NAMED, 'loss_angle': BOTH_NAMED}
    ),
    Row(
        'mmrotate',
        'OrientedRPNHead AngleBranchRetinaHead',
        {'loss_cls': BOTH, 'loss_bbox': BOXES, 'loss_angle': BOTH_NAMED.shaped('elements')},
    ),
    Row(
        'mmrotate',
        'RotatedRetinaHead R3Head R3RefineHead S2AHead S2ARefineHead RotatedShared2FCBBoxHead',
        {'loss_cls': BOTH, 'loss_bbox': ROTATED_BOXES},
    ),
    Row('mmrotate', 'GVBBoxHead', {'loss_cls': BOTH, 'loss_bbox': BOXES}),
    Row('mmrotate', 'RotatedRepPointsHead', {'loss_cls': BOTH, 'loss_bbox_init': BOTH, 'loss_bbox_refine': BOTH}),
    Row('mmrotate', 'CFAHead', {'loss_cls': BOTH, 'loss_bbox_init': BOTH, 'loss_bbox_refine': WEIGHTED}),
    Row(
        'mmrotate',
        'OrientedRepPointsHead SAMRepPointsHead',
        {
            'loss_cls': BOTH,
            'loss_bbox_init': WEIGHTED,
            'loss_bbox_refine': WEIGHTED,
            'loss_spatial_init': WEIGHTED,
            'loss_spatial_refine': WEIGHTED,
        },
    ),
    Row(
        'mmrotate',
        'RotatedFCOSHead H2RBoxHead',
        {
            'loss_cls': AVERAGED,
            'loss_bbox': BOTH_NAMED,
            'loss_bbox_ss': BOTH_NAMED,
            'loss_centerness': DENSE_AVERAGED,
            'loss_angle': AVERAGED,
        },
    ),
    Row(
        'mmrotate',
        'H2RBoxConsistencyLoss',
        dict.fromkeys(
            ('center_loss_cfg', 'shape_loss_cfg', 'angle_loss_cfg'),
            replace(BOTH_NAMED, constants=always(reduction_override=Own('reduction', 'mean'))),
        ),
    ),
    Row(
        'mmrotate',
        'RotatedATSSHead',
        {'loss_cls': BOTH, 'loss_bbox': BOTH_NAMED, 'loss_centerness': DENSE_AVERAGED},
    ),
    Row(
        'mmrotate',
        'RotatedRTMDetHead RotatedRTMDetSepBNHead',
        {'loss_cls': BOTH, 'loss_bbox': BOTH_NAMED, 'loss_angle': BOTH_NAMED},
    ),
)

VOTES = {
    'objectness_loss': WEIGHT_NAMED,
    'dir_class_loss': WEIGHT_NAMED,
    'dir_res_loss': WEIGHT_NAMED,
    'size_class_loss': WEIGHT_NAMED,
    'size_res_loss': WEIGHT_NAMED,
    'semantic_loss': WEIGHT_NAMED,
}
VOTE = {'vote_module_cfg.vote_loss': Gives(2, ('dst_weight',), shapes=('votes',))}
MONO = {
    'loss_cls': AVERAGED,
    'loss_bbox': BOTH_NAMED,
    'loss_dir': BOTH,
    'loss_attr': BOTH,
    'loss_centerness': DENSE,
}

DETECTORS_3D = (
    Row(
        'mmdet3d',
        'Anchor3DHead PartA2RPNHead ShapeAwareHead',
        {'loss_cls': BOTH, 'loss_bbox': BOTH, 'loss_dir': BOTH},
    ),
    Row(
        'mmdet3d',
        'FreeAnchor3DHead',
        {'loss_bbox': Gives(3, constants=always(reduction_override='none')), 'loss_dir': EACH},
    ),
    Row('mmdet3d', 'CenterHead', {'loss_cls': AVERAGED, 'loss_bbox': BOTH}),
    Row(
        'mmdet3d',
        'FCAF3DHead ImVoxelHead',
        {'cls_loss': AVERAGED, 'center_loss': DENSE_AVERAGED, 'bbox_loss': BOTH_NAMED},
    ),
    Row('mmdet3d', 'FCOSMono3DHead', MONO),
    Row(
        'mmdet3d',
        'PGDHead',
        {
            **MONO,
            'loss_depth': replace(BOTH_NAMED, if_taken=('sigma',)),
            'loss_bbox2d': BOTH_NAMED,
            'loss_consistency': BOTH_NAMED,
        },
    ),
    Row('mmdet3d', 'SMOKEMono3DHead', {'loss_cls': AVERAGED, 'loss_bbox': PLAIN}),
    Row(
        'mmdet3d',
        'MonoFlexHead',
        {
            'loss_cls': AVERAGED,
            'loss_direct_depth': WEIGHTED,
            **dict.fromkeys(
                ('loss_bbox', 'loss_dir', 'loss_keypoints', 'loss_dims', 'loss_offsets_2d', 'loss_combined_depth'),
                PLAIN,
            ),
        },
    ),
    Row(
        'mmdet3d',
        'GroupFree3DHead',
        {
            **VOTES,
            'sampling_objectness_loss': BOTH,
            'objectness_loss': BOTH,
            'center_loss': WEIGHT_NAMED,
            'size_reg_loss': WEIGHT_NAMED,
        },
    ),
    Row(
        'mmdet3d',
        'VoteHead',
        {
            **VOTES,
            **VOTE,
            'center_loss': Gives(2, ('src_weight', 'dst_weight')),
            'iou_loss': WEIGHT_NAMED.shaped('proposals'),
        },
    ),
    Row(
        'mmdet3d',
        'H3DBboxHead',
        {
            **VOTES,
            'center_loss': Gives(2, ('src_weight', 'dst_weight')),
            'cues_objectness_loss': BOTH_NAMED,
            'cues_semantic_loss': BOTH_NAMED,
            'proposal_objectness_loss': PLAIN,
            'primitive_center_loss': PLAIN,
        },
    ),
    Row(
        'mmdet3d',
        'SSD3DHead',
        dict.fromkeys(
            (
                'objectness_loss',
                'center_loss',
                'dir_class_loss',
                'dir_res_loss',
                'size_res_loss',
                'corner_loss',
                'vote_loss',
            ),
            WEIGHT_NAMED,
        ),
    ),
    Row(
        'mmdet3d',
        'PrimitiveHead',
        {
            **VOTE,
            'objectness_loss': PLAIN,
            'center_loss': Gives(2, ('dst_weight',), shapes=('votes',)),
            'semantic_reg_loss': Gives(2, ('dst_weight',), shapes=('votes',)),
            'semantic_cls_loss': WEIGHT_NAMED,
        },
    ),
    Row('mmdet3d', 'PointRPNHead', {'cls_loss': WEIGHTED, 'bbox_loss': WEIGHTED}),
    Row(
        'mmdet3d',
        'PartA2BboxHead PointRCNNBboxHead PVRCNNBBoxHead',
        {'loss_cls': WEIGHTED.shaped('dense'), 'loss_bbox': WEIGHTED},
    ),
    Row('mmdet3d', 'ForegroundSegmentationHead PointwiseSemanticHead', {'loss_seg': WEIGHTED, 'loss_part': DENSE}),
    Row(
        'mmdet3d',
        'DGCNNHead MinkUNetHead PointNet2Head PAConvHead',
        {'loss_decode': Gives(2, constants=IGNORED)},
    ),
    Row(
        'mmdet3d',
        'Cylinder3DHead',
        dict.fromkeys(('loss_ce', 'loss_lovasz'), Gives(2, constants=always(ignore_index=Own('ignore_index', 19)))),
    ),
)

SEGMENTORS = (
    Row(
        'mmseg',
        'ANNHead APCHead ASPPHead CCHead DAHead DepthwiseSeparableASPPHead DepthwiseSeparableFCNHead DMHead DNLHead '
        'DPTHead EMAHead EncHead FCNHead FPNHead GCHead ISAHead LightHamHead LRASPPHead NLHead OCRHead PSAHead PSPHead '
        'SegformerHead SegmenterMaskTransformerHead SETRMLAHead SETRUPHead STDCHead UPerHead',
        {'loss_decode': PIXELS, 'loss_se_decode': DENSE},
    ),
    Row('mmseg', 'PointHead', {'loss_decode': Gives(2, constants=IGNORED)}),
    Row('mmseg', 'DDRHead VPDDepthHead', {'loss_decode': PLAIN}),
    Row('mmseg', 'PIDHead', {'loss_decode': PLAIN, 'loss_decode[0]': Gives(2, constants=IGNORED)}),
    Row(
        'mmseg',
        'SideAdapterCLIPHead',
        {
            'loss_decode': (
                replace(PLAIN.shaped('labels'), when=_named('loss_cls')),
                replace(AVERAGED.shaped('dense', 'points'), when=_named('loss_mask')),
            )
        },
    ),
    Row('mmseg', 'MaskFormerHead', {'loss_cls': BOTH, 'loss_mask': AVERAGED, 'loss_dice': AVERAGED}),
    Row('mmseg', 'Mask2FormerHead', {'loss_cls': BOTH, 'loss_mask': DENSE_AVERAGED, 'loss_dice': AVERAGED}),
)

POSES = (
    Row(
        'mmpose',
        'RTMCCHead RTMWHead SimCCHead HeatmapHead ViPNASHead CPMHead MSPNHead VisPredictHead '
        'RegressionHead MotionRegressionHead TemporalRegressionHead TrajectoryRegressionHead',
        {'loss': WEIGHTED},
    ),
    # one weight per keypoint, without a dimension for its coordinates
    Row('mmpose', 'IntegralRegressionHead DSNTHead', {'loss': WEIGHTED.shaped('joint_weights')}),
    Row('mmpose', 'MultipleLossWrapper', {'losses': WEIGHTED.shaped('joint_weights')}),
    Row('mmpose', 'InternetHead', dict.fromkeys(('loss', 'loss_hand_type', 'loss_root_depth'), WEIGHTED)),
    Row('mmpose', 'RLEHead', {'loss': Gives(4)}),
    Row('mmpose', 'AssociativeEmbeddingHead', {'keypoint_loss': Gives(4), 'tag_loss': PLAIN}),
    Row(
        'mmpose',
        'CIDHead',
        {
            'coupled_heatmap_loss': Gives(2, ('mask',)),
            'decoupled_heatmap_loss': WEIGHTED,
            'contrastive_loss': Gives(1),
        },
    ),
    Row(
        'mmpose',
        'DEKRHead',
        {'heatmap_loss': Gives(4).shaped('pixel_weights'), 'displacement_loss': WEIGHTED.shaped('maps')},
    ),
    Row(
        'mmpose',
        'YOLOXPoseHead RTMOHead',
        {
            'loss_bbox': PLAIN,
            'loss_bbox_aux': PLAIN,
            'loss_obj': WEIGHTED,
            'loss_vis': WEIGHTED,
            'loss_kpt_aux': WEIGHTED,
            'loss_mle': WEIGHTED,
            'loss_oks': Gives(4),
        },
    ),
    Row('mmpose', 'YOLOXPoseHead', {'loss_cls': PLAIN}),
    Row('mmpose', 'RTMOHead', {'loss_cls': WEIGHTED}),
    Row('mmpose', 'PoseLifter', {'semi_loss': PLAIN}),
    Row(
        'mmpose',
        'DWPoseDistiller',
        {
            'distill_cfg.methods': (
                replace(PLAIN, when=_of_type('FeaLoss')),
                replace(Gives(4), when=_of_type('KDLoss')),
            )
        },
    ),
)

CLASSIFIERS = (
    Row(
        'mmpretrain',
        'ClsHead LinearClsHead VisionTransformerClsHead StackedLinearClsHead VigClsHead ConformerHead DeiTClsHead '
        'EfficientFormerClsHead LeViTClsHead ArcFaceClsHead MultiLabelClsHead MultiLabelLinearClsHead CSRAClsHead '
        'ITMHead HuggingFaceClassifier',
        {'loss': AVERAGED},
    ),
    Row('mmpretrain', 'TimmClassifier', {'loss': PLAIN}),
    Row(
        'mmpretrain',
        'BEiTV1Head BEiTV2Head ContrastiveHead iTPNClipHead LatentPredictHead MixMIMPretrainHead MoCoV3Head '
        'VQAGenerationHead',
        {'loss': PLAIN},
    ),
    Row('mmpretrain', 'MAEPretrainHead MIMHead SparKPretrainHead', {'loss': WEIGHTED.shaped('patches', 'tokens')}),
    Row('mmpretrain', 'SimMIMHead', {'loss': WEIGHTED.shaped('images')}),
    Row('mmpretrain', 'SwAVHead LatentCrossCorrelationHead', {'loss': Gives(1)}),
    Row('mmpretrain', 'CAEHead', {'loss': Gives(4)}),
    Row('mmpretrain', 'SeqGenerationHead', {'loss': BOTH_NAMED}),
    Row(
        'mmaction',
        'FeatureHead GCNHead I3DHead MViTHead OmniHead RGBPoseHead SlowFastHead TimeSformerHead TPNHead TRNHead '
        'TSMHead TSNAudioHead TSNHead UniFormerHead X3DHead',
        {'loss_cls': PLAIN},
    ),
    Row('mmaction', 'BMN', {'loss_cls': Gives(7)}),
    Row('mmaction', 'TEM', {'loss_cls': Gives(3, constants=always(threshold=Own('tem_match_threshold')))}),
    Row(
        'mmrazor',
        'ConfigurableDistiller BYOTDistiller OFDDistiller',
        {'distill_losses.*': Gives(0, mapped='loss_forward_mappings')},
    ),
)

IMAGES = (
    Row('mmocr', 'DBModuleLoss', dict.fromkeys(('loss_prob', 'loss_thr', 'loss_db'), WEIGHTED)),
    Row(
        'mmocr',
        'PANModuleLoss PSEModuleLoss',
        {'loss_text': WEIGHTED, 'loss_kernel': WEIGHTED, 'loss_embedding': Gives(4)},
    ),
    Row(
        'mmocr',
        'TextSnakeModuleLoss DRRGModuleLoss',
        {
            **dict.fromkeys(('loss_text', 'loss_center', 'loss_radius', 'loss_sin', 'loss_cos'), WEIGHTED),
            **dict.fromkeys(('loss_top', 'loss_btm', 'loss_gcn'), PLAIN),
        },
    ),
    Row(
        'mmocr',
        'FCEModuleLoss',
        {'loss_tr': WEIGHTED, 'loss_center': WEIGHTED, 'loss_reg_x': PLAIN},
    ),
    Row(
        'mmagic',
        'BaseEditModel BasicInterpolator CAIN EDVR LIIF TDAN DeblurGanV2',
        {'pixel_loss': PLAIN, 'lq_pixel_loss': PLAIN},
    ),
    Row('mmagic', 'BasicVSR', {'pixel_loss': PLAIN.shaped('videos')}),
    Row(
        'mmagic',
        'SRGAN RealESRGAN RealBasicVSR TTSR DIC',
        {
            'pixel_loss': PLAIN,
            'cleaning_loss': PLAIN,
            'align_loss': PLAIN,
            'transferal_perceptual_loss': WEIGHTED,
            'gan_loss': GAN,
        },
    ),
    Row('mmagic', 'ESRGAN', {'pixel_loss': PLAIN, 'gan_loss': RELATIVISTIC}),
    Row(
        'mmagic',
        'OneStageInpaintor TwoStageInpaintor DeepFillv1Inpaintor GLInpaintor PConvInpaintor',
        {
            'loss_gan': GAN,
            'loss_l1_hole': WEIGHT_NAMED.shaped('masks'),
            'loss_l1_valid': WEIGHT_NAMED.shaped('masks'),
            'loss_tv': Gives(1, ('mask',)),
            'loss_disc_shift': Gives(1),
        },
    ),
    Row(
        'mmagic',
        'AOTInpaintor',
        {
            'loss_gan': tuple(replace(gives, named=('mask',)) for gives in GAN),
            'loss_l1_valid': PLAIN,
            'loss_disc_shift': Gives(1),
        },
    ),
    Row('mmagic', 'DIM IndexNet GCA', {'loss_alpha': WEIGHTED, 'loss_refine': WEIGHTED, 'loss_comp': Gives(5)}),
)

TABLE = (*DETECTORS, *DETECTORS_3D, *SEGMENTORS, *POSES, *CLASSIFIERS, *IMAGES)


@dataclass(frozen=True)
class Head:
    """The dict around a loss in a config, and the place of the loss in it.

    Attributes:
        type: its type with the package, such as ``mmseg.FCNHead``.
        option: the place of the loss in it, such as ``loss_decode`` or ``loss_decode[1]``.
        config: the dict.
    """

    type: str
    option: str
    config: Config

    @property
    def place(self) -> str:
        """The place of the loss, such as ``mmseg.FCNHead.loss_decode``."""
        return f'{self.type}.{self.option}'


@dataclass(frozen=True)
class HeadCall:
    """How a head calls one of our losses.

    Attributes:
        place: the head and its option, with the prefix :data:`UNKNOWN` if it is not in the table.
        call_name: the call; '' if unknown.
        optional: the optional inputs given; None if unknown.
        constants: the arguments that become constants of the artefact.
    """

    place: str
    call_name: str = ''
    optional: tuple[str, ...] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)


def in_table(head: Head) -> tuple[Gives, ...]:
    """The table's entry for a place; empty if there is none."""
    package, _, name = head.type.rpartition('.')
    plain = '.'.join(part.partition('[')[0] for part in head.option.split('.'))
    for option in (head.option, plain, f'{plain.rpartition(".")[0]}.*'):
        for row in TABLE:
            if row.package == package and name in row.heads.split() and option in row.losses:
                gives = row.losses[option]
                return gives if isinstance(gives, tuple) else (gives,)
    return ()


def given_by(head: Head, loss: Config) -> tuple[Gives, ...]:
    """What a head gives in each call of a loss with this config; empty if unknown."""
    return tuple(_mapped(gives, head) for gives in in_table(head) if gives.when(head.config, loss))


def _mapped(gives: Gives, head: Head) -> Gives:
    """The arguments as listed in the config, if it lists them for each loss."""
    if not gives.mapped:
        return gives
    names = head.config.get(gives.mapped, {}).get(head.option.rpartition('.')[2], ())
    return replace(gives, named=tuple(names))


def head_calls(head: Head, written: Config, loss: nn.Module, call_name: str = '') -> Iterator[HeadCall]:
    """The calls that a head makes of one of our losses.

    Args:
        head: the head.
        written: the config of the loss.
        loss: our loss for it.
        call_name: the call that corresponds to the host's, if known; else ''.

    Raises:
        ConfigError: the loss does not take what the head gives.
    """
    given = given_by(head, written)
    if not given:
        yield HeadCall(f'{UNKNOWN}{head.place}')
    for gives in given:
        yield _head_call(head, gives, loss, call_name)


def _head_call(head: Head, gives: Gives, loss: nn.Module, call_name: str) -> HeadCall:
    name, parameters = type(loss).__name__, list(inspect.signature(type(loss).forward).parameters)[1:]
    values = {n: v.of(head.config) if isinstance(v, Own) else v for n, v in gives.constants.items()}
    taken = [n for n in gives.if_taken if n in parameters]
    passed = {*parameters[: gives.positional], *gives.named, *taken, *values}
    constants = {n: v for n, v in values.items() if v is not None}
    odd = sorted((passed - values.keys() | constants.keys()) - set(parameters))
    if odd or gives.positional > len(parameters):
        what = ', '.join(odd) or f'{gives.positional} arguments'
        raise ConfigError(f'{head.type} gives {what}, which {name} does not take')
    tensors = passed - values.keys()
    view = as_called(loss, constants)
    allowed = [c for c in calls_of(loss) if c.when(view)]
    allowed = _preferred(allowed, gives.shapes) or _preferred(allowed, (call_name,)) or allowed
    fitting = [c for c in allowed if _parameters(c, _needed(c, view)) <= tensors and _agrees(c, constants)]
    if not fitting:
        raise ConfigError(f'{head.type} gives {", ".join(sorted(passed))}; no call of {name} takes just these')
    chosen = max(fitting, key=lambda c: len(_parameters(c, _taken(c, view)) & tensors))
    optional = tuple(i.name for i in _taken(chosen, view) if i.optional and _parameters(chosen, [i]) <= tensors)
    own = {n: v for n, v in constants.items() if n not in chosen.constants}
    return HeadCall(head.place, chosen.name, optional, own)


def _preferred(calls: Iterable[Call], names: Iterable[str]) -> list[Call]:
    """The calls with these names."""
    return [c for c in calls if c.name in names]


def _taken(call: Call, view: nn.Module) -> list[Input]:
    """The inputs that the caller gives: neither state nor noise, which the loss provides itself."""
    return [i for i in call.inputs if i.when(view) and not i.state and i.role is not Role.NOISE]


def _needed(call: Call, view: nn.Module) -> list[Input]:
    return [i for i in _taken(call, view) if not i.optional]


def _parameters(call: Call, inputs: Iterable[Input]) -> set[str]:
    """The parameters that take these inputs."""
    return {call.parameter_of(i.name) for i in inputs}


def _agrees(call: Call, constants: Mapping[str, Any]) -> bool:
    """Whether the call's constants do not contradict these."""
    return all(call.constants[n] == v for n, v in constants.items() if n in call.constants)
