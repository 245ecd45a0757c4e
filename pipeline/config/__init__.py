"""The job file: one frozen pydantic model, built once at the edge and passed down by section.

Unknown keys are refused with their path and the nearest valid key. The environment is never
read here; it holds credentials only.
"""

from pipeline.config.cluster import ClusterConfig as ClusterConfig
from pipeline.config.cluster import ReplicaRange as ReplicaRange
from pipeline.config.corpus import CsvConfig as CsvConfig
from pipeline.config.corpus import InputConfig as InputConfig
from pipeline.config.encoder import EncoderConfig as EncoderConfig
from pipeline.config.encoder import PromptConfig as PromptConfig
from pipeline.config.job import JobConfig as JobConfig
from pipeline.config.job import load_job as load_job
from pipeline.config.job import parse_job as parse_job
from pipeline.config.limits import LimitsConfig as LimitsConfig
from pipeline.config.remote import RemoteConfig as RemoteConfig
from pipeline.config.section import Section as Section
