from .devices import Hardware as Hardware, choose_hardware as choose_hardware
from .fitting import fit as fit
from .job import Job as Job
from .metrics_file import read_history as read_history
from .record import RunRecord as RunRecord, read_record as read_record
