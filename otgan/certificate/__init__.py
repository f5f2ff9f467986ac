"""What a potential is worth: its masses, and an interval for the Wasserstein distance.

base.py: the certificate; sampled.py: from samples that the solver did not see; exact.py: from integrals over the cells;
coupling.py: the coupling of source and target behind the upper ends; statistics.py: estimates and their errors.
"""

from otgan.certificate.base import Certificate
from otgan.certificate.coupling import Repair, repair
from otgan.certificate.exact import certify_exact
from otgan.certificate.sampled import LEAST_SAMPLES, certify
from otgan.certificate.statistics import chi2_estimate

__all__ = ["LEAST_SAMPLES", "Certificate", "Repair", "certify", "certify_exact", "chi2_estimate", "repair"]
