"""Every text of the report in English and in Chinese, and the titles of the codes in Chinese.

Texts with a bar have a singular and a plural. `unit` in a text is one of `rows` and `elements`, or their count.
"""

from __future__ import annotations

Texts = dict[str, str]

BOTH = {
    "lang": ("en", "zh-CN"),
    "space": (" ", ""),  # between two sentences
    "comma": (", ", "，"),
    "title": ("Evaluation report", "评估报告"),
    "skip": ("Skip to the diagnosis", "跳到诊断"),
    "sections": ("Sections", "章节"),
    "to_dark": ("Dark theme", "深色主题"),
    "to_light": ("Light theme", "浅色主题"),
    "footer": (
        "Written by withlogits {version}. Losses are means in nats unless a figure says otherwise.",
        "由 withlogits {version} 生成。除非另有说明，损失均为平均值，单位为奈特（nat）。",
    ),
    # the head of the page
    "logits": ("Logits", "Logits"),
    "labels": ("Labels", "标签"),
    "loss_function": ("Loss", "损失函数"),
    "data": ("Data", "数据"),
    "data_text": ("{count} in {classes}", "{count}，{classes}"),
    "ignored_text": ("{ignored} ignored", "忽略 {ignored}"),
    "rows_count": ("{n} row|{n} rows", "{n} 个样本"),
    "elements_count": ("{n} element|{n} elements", "{n} 个元素"),
    "classes_count": ("{n} class|{n} classes", "{n} 个类别"),
    "rows": ("rows", "样本"),
    "elements": ("elements", "元素"),
    # diagnosis
    "diagnosis": ("Diagnosis", "诊断"),
    "looked_at": ("Looked at: ", "检查对象："),
    "nothing_found": (
        "Nothing found: no known mistake shows in these labels and logits.",
        "未发现问题：这些标签和 logits 没有任何已知错误的迹象。",
    ),
    "errors_count": ("{n} error|{n} errors", "{n} 个错误"),
    "warnings_count": ("{n} warning|{n} warnings", "{n} 个警告"),
    "notes_count": ("{n} note|{n} notes", "{n} 个提示"),
    "error": ("Error", "错误"),
    "warning": ("Warning", "警告"),
    "note": ("Note", "提示"),
    "error_means": ("the loss of this pair is meaningless", "这一对数据的损失没有意义"),
    "warning_means": ("probably not what was meant", "很可能不是本意"),
    "note_means": ("worth knowing", "值得了解"),
    "evidence": ("Evidence", "依据"),
    "fix": ("Fix", "改法"),
    "recommendation": ("Which loss fits these labels", "这些标签适合哪种损失"),
    "recommended": ("Loss", "损失"),
    "why": ("Why", "理由"),
    "form": ("Labels are", "标签形式"),
    "transform": ("First", "先转换"),
    "call": ("Call", "调用"),
    # key figures
    "key_figures": ("Key figures", "关键指标"),
    "group_loss": ("Loss", "损失"),
    "group_decisions": ("Decisions", "判断"),
    "group_calibration": ("Calibration", "校准"),
    "loss_nats": ("Loss, nats", "损失（奈特）"),
    "loss_bits": ("Loss, bits", "损失（比特）"),
    "perplexity": ("Perplexity", "困惑度"),
    "guessing": ("Loss of guessing evenly", "均匀猜测的损失"),
    "accuracy": ("Accuracy", "准确率"),
    "top": ("Top-{k} accuracy", "前 {k} 准确率（top-{k}）"),
    "micro_f1": ("F1, micro", "F1（微平均）"),
    "macro_f1": ("F1, macro", "F1（宏平均）"),
    "micro_precision": ("Precision, micro", "精确率（微平均）"),
    "micro_recall": ("Recall, micro", "召回率（微平均）"),
    "best_f1_mean": ("F1 at the best thresholds, mean of the classes", "最佳阈值下的 F1（各类别平均）"),
    "auroc_mean": ("AUROC, mean of the classes", "AUROC（各类别平均）"),
    "average_precision_mean": ("Average precision (AP), mean of the classes", "平均精度 AP（各类别平均）"),
    "auroc_error": ("AUROC, largest error", "AUROC 的最大误差"),
    "average_precision_error": ("AP, largest error", "AP 的最大误差"),
    "temperature": ("Temperature", "温度"),
    "loss_at_temperature": ("Loss at this temperature", "该温度下的损失"),
    "ece_before": ("ECE as given", "ECE（原样）"),
    "ece_after": ("ECE at this temperature", "ECE（该温度下）"),
    "classwise_ece": ("Class-wise calibration error", "逐类校准误差"),
    "brier_score": ("Brier score", "Brier 分数"),
    "about_loss": (
        "The mean of −ln p over {unit}, where p is the predicted probability of the label.",
        "各{unit}的 −ln p 的平均值，p 是模型给真实答案的概率。",
    ),
    "about_decisions_exclusive": (
        "A row is right if the class of the largest logit is its label.",
        "最大的 logit 所在的类别就是标签，则该样本判断正确。",
    ),
    "about_decisions_independent": (
        "An element is predicted “yes” if its probability is above 1/2.",
        "概率高于 1/2 的元素判为“是”。",
    ),
    "about_calibration": (
        (
            "Logits divided by the temperature have the smallest loss. ECE, the expected calibration error, is the "
            "mean distance between confidence and accuracy."
        ),
        "logits 除以该温度后损失最小。ECE（期望校准误差）是置信度与准确率的平均差距。",
    ),
    "fitted_on": ("The temperature was found on {count}.", "温度由 {count}求得。"),
    # figures
    "figures": ("Figures", "图"),
    "as_table": ("The numbers as a table", "以表格显示数据"),
    "histogram": ("Distribution of the losses", "损失的分布"),
    "histogram_message": (
        (
            "Half of the {unit} lose less than about {median} nats, one in ten loses more than about {high}. The mean "
            "is {mean}; guessing evenly would lose {guess}."
        ),
        "一半{unit}的损失低于约 {median} 奈特，十分之一高于约 {high}。平均为 {mean}；均匀猜测为 {guess}。",
    ),
    "histogram_empty": ("There is no finite loss to show.", "没有可以显示的有限损失。"),
    "histogram_left_out": (
        "Not shown: {count} with a loss that is infinite or NaN.",
        "未显示：{count}的损失为无穷大或 NaN。",
    ),
    "histogram_x": ("Loss, nats", "损失（奈特）"),
    "histogram_x_log": ("Loss, nats (log scale)", "损失（奈特，对数刻度）"),
    "histogram_y": ("{unit} for each doubling of the loss", "损失每翻一倍区间内的{unit}数"),
    "histogram_tip": ("{low} to {high} nats: {count} ({share})", "{low} 至 {high} 奈特：{count}（{share}）"),
    "mean": ("mean {value}", "平均 {value}"),
    "guess": ("guessing {value}", "猜测 {value}"),
    "from": ("From", "从"),
    "to": ("To", "到"),
    "count": ("Count", "数量"),
    "share": ("Share", "占比"),
    "reliability": ("Calibration", "校准"),
    "reliability_before": ("As given", "原样"),
    "reliability_after": ("Divided by the temperature {temperature}", "除以温度 {temperature} 之后"),
    "reliability_message_exclusive": (
        "The predicted classes have a mean probability of {confidence}, and {accuracy} of them are right: ECE {error}.",
        "预测类别的平均概率为 {confidence}，其中 {accuracy} 正确：ECE 为 {error}。",
    ),
    "reliability_message_independent": (
        "The mean probability of “yes” is {confidence}, and {accuracy} of the elements are “yes”: ECE {error}.",
        "“是”的平均概率为 {confidence}，实际有 {accuracy} 的元素为“是”：ECE 为 {error}。",
    ),
    "reliability_empty": ("There are no probabilities to show.", "没有可以显示的概率。"),
    "reliability_x": ("Confidence", "置信度"),
    "reliability_y_exclusive": ("Accuracy", "准确率"),
    "reliability_y_independent": ("Share that is “yes”", "为“是”的比例"),
    "reliability_legend": (
        (
            "On the dashed line, confidence equals accuracy; a vertical bar is the gap. Below: how many {unit} have "
            "which confidence."
        ),
        "落在虚线上，说明置信度与准确率相符；竖条表示差距。下方是{unit}按置信度的分布。",
    ),
    "reliability_tip": (
        "confidence {confidence}, accuracy {accuracy}: {count}",
        "置信度 {confidence}，准确率 {accuracy}：{count}",
    ),
    "claimed": ("Mean confidence", "平均置信度"),
    "came_true": ("Accuracy", "准确率"),
    "confusion": ("Confusion matrix", "混淆矩阵"),
    "confusion_message": (
        "{right} of the rows of the classes shown are right. Most often {label} is taken for {predicted}: {count}.",
        "图中各类别的样本有 {right} 判断正确。最常见的是把{label}认作{predicted}：{count}。",
    ),
    "confusion_message_none": (
        "{right} of the rows of the classes shown are right; no class is taken for another.",
        "图中各类别的样本有 {right} 判断正确；没有类别被认作其他类别。",
    ),
    "confusion_empty": ("There are no rows to show.", "没有可以显示的样本。"),
    "confusion_some": ("The {shown} of {all} classes with most confusions.", "{all} 个类别中混淆最多的 {shown} 个。"),
    "confusion_legend": (
        (
            "A row is a true class, a column a predicted one. The deeper the colour, the larger the share of the true "
            "class; right and wrong have scales of their own."
        ),
        "每行是一个真实类别，每列是一个预测类别。颜色越深，占该真实类别的比例越大；正确与错误各用一个色阶。",
    ),
    "confusion_right": ("right, up to {share}", "正确，最高 {share}"),
    "confusion_wrong": ("wrong, up to {share}", "错误，最高 {share}"),
    "confusion_true": ("true ↓", "真实 ↓"),
    "confusion_predicted": ("predicted →", "预测 →"),
    "confusion_tip": (
        "{label} taken for {predicted}: {count} ({share} of {label})",
        "{label}被认作{predicted}：{count}（占{label}的 {share}）",
    ),
    "confusion_tip_right": ("{label} recognized: {count} ({share})", "{label}判断正确：{count}（{share}）"),
    "per_class_figure": ("Classes with the highest loss", "损失最大的类别"),
    "per_class_figure_message": (
        "The mean loss is largest for {worst}, {high} nats, and smallest for {best}, {low}.",
        "平均损失最大的是{worst}，{high} 奈特；最小的是{best}，{low} 奈特。",
    ),
    "per_class_figure_one": ("The mean loss of {worst} is {high} nats.", "{worst}的平均损失为 {high} 奈特。"),
    "per_class_figure_none": ("No class has a loss to show.", "没有可以显示损失的类别。"),
    "per_class_figure_some": (
        "The {shown} of {all} classes with the highest total loss.",
        "{all} 个类别中总损失最高的 {shown} 个。",
    ),
    "per_class_tip": ("{name}: {loss} nats on average, {count}", "{name}：平均 {loss} 奈特，{count}"),
    # tables
    "tables": ("Tables", "表格"),
    "no_script": ("Without a script the table cannot be sorted.", "没有脚本时表格不能排序。"),
    "per_class": ("Per class", "各类别"),
    "per_class_caption": (
        "Every class, the highest total loss first. A button in a heading sorts by that column.",
        "全部类别，总损失最高的在前。点按表头中的按钮可按该列排序。",
    ),
    "per_class_caption_some": (
        "The {shown} of {all} classes with the highest total loss. A button in a heading sorts these by that column.",
        "{all} 个类别中总损失最高的 {shown} 个。点按表头中的按钮可按该列对它们排序。",
    ),
    "class": ("Class", "类别"),
    "class_named": ("“{name}”", "“{name}”"),
    "class_number": ("class {name}", "“类别 {name}”"),
    "name": ("Name", "名称"),
    "support_exclusive": ("Rows", "样本数"),
    "support_independent": ("“Yes”", "“是”的数量"),
    "mean_loss": ("Mean loss", "平均损失"),
    "yes_count": ("“yes”: {n}", "“是”：{n}"),
    "loss_share": ("Share of loss", "占总损失"),
    "recall": ("Recall", "召回率"),
    "precision": ("Precision", "精确率"),
    "f1": ("F1", "F1"),
    "auroc": ("AUROC", "AUROC"),
    "average_precision": ("AP", "AP"),
    "best_f1": ("Best F1", "最佳 F1"),
    "best_logit": ("from logit", "从 logit 起"),
    "brier": ("Brier", "Brier"),
    "calibration_error": ("ECE", "ECE"),
    "thresholds": ("Decisions at other thresholds", "其他阈值下的判断"),
    "thresholds_caption": (
        "An element is predicted “yes” if its probability is above the threshold; micro-averaged.",
        "概率高于阈值的元素判为“是”；均为微平均。",
    ),
    "threshold": ("Threshold", "阈值"),
    "costliest": ("Examples with the highest loss", "损失最大的样本"),
    "costliest_caption_exclusive": (
        "The rows with the largest losses: mislabelled rows are often among them.",
        "损失最大的样本：标错的样本往往在其中。",
    ),
    "costliest_caption_independent": (
        "The elements with the largest losses: wrong labels are often among them.",
        "损失最大的元素：标错的标签往往在其中。",
    ),
    "costliest_none": ("No examples were kept.", "没有保留样本。"),
    "where_exclusive": ("Row", "样本"),
    "where_independent": ("Element", "元素"),
    "loss": ("Loss, nats", "损失（奈特）"),
    "label": ("Label", "标签"),
    "predicted": ("Predicted", "预测"),
    "confidence": ("Confidence", "置信度"),
    "confusions": ("Most frequent confusions", "最常见的混淆"),
    "confusions_caption": (
        "Pairs of a true class and the class predicted instead, the most frequent first.",
        "真实类别与误判的类别，最常见的在前。",
    ),
    "confusions_none": ("No class was taken for another.", "没有类别被认作其他类别。"),
    "true_class": ("True class", "真实类别"),
    "predicted_class": ("Predicted class", "预测类别"),
    "times": ("Count", "次数"),
    "first_of": ("The first {shown} of {all}.", "共 {all} 项，显示前 {shown} 项。"),
}

ENGLISH: Texts = {key: english for key, (english, _) in BOTH.items()}
CHINESE: Texts = {key: chinese for key, (_, chinese) in BOTH.items()}
TEXTS = {"en": ENGLISH, "zh": CHINESE}

# The mistakes of `withlogits.guide.findings.CODES`. In English a finding brings its own title.
CHINESE_TITLES = {
    "WL101": "把概率当作 logits 传入（softmax）",
    "WL102": "把概率当作 logits 传入（sigmoid）",
    "WL103": "把对数概率当作 logits 传入",
    "WL104": "标签与 logits 弄反了",
    "WL105": "只有一个类别却使用 softmax",
    "WL106": "logits 中有 NaN 或无穷大",
    "WL107": "logits 不随样本变化",
    "WL108": "logits 的数值大得离谱",
    "WL109": "bfloat16 被存成了 2 字节的 void 类型",
    "WL201": "把 one-hot 标签交给了 sparse 损失",
    "WL202": "把类别编号交给了需要稠密标签的损失",
    "WL203": "多个类别同时为真，损失却是 softmax",
    "WL204": "每行恰有一个类别为真，损失却是 sigmoid",
    "WL205": "标签的行不是概率分布",
    "WL206": "标签越界",
    "WL207": "标签中有填充值",
    "WL208": "类别编号存成了浮点数",
    "WL209": "标签用了另一种尺度",
    "WL210": "形状 (N,) 与 (N, 1) 混用",
    "WL211": "类别在另一个轴上",
    "WL212": "标签被转置了",
    "WL213": "没有可区分的内容：只有一个类别，或全部被忽略",
    "WL214": "类别严重不平衡",
    "WL301": "模型与标签的类别顺序不一致",
    "WL302": "预测错开了一步",
    "WL303": "预测正好相反",
    "WL304": "logits 校准不良",
    "WL305": "标签与 logits 的顺序不一致",
    "WL401": "模型末端带有 softmax 或 sigmoid",
    "WL402": "logits 已从模型的计算图中断开",
}
