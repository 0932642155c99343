"""nmea_msgs: sentences of satellite receivers as text.

Source: nmea_msgs/msg/Sentence.msg (ROS driver stack, not part of the common interfaces).
"""

from lakehouse.orchestration.recordings.ontology_mapping.expressions import MessageTable, record
from lakehouse.orchestration.recordings.ontology_mapping.std_msgs import HEADER

MESSAGES: MessageTable = {
    "nmea_msgs/msg/Sentence": ("NMEASentence", record(header=HEADER, sentence="sentence")),
}
