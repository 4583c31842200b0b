"""A time and a place in; how far the sun is from the zenith out."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from calfin_cloud.sensors import in_utc


def sun_zenith_deg(when: datetime, longitude: float, latitude: float) -> float:
    """Angle between sun and zenith in degrees, without refraction; 90 is sunrise, more is night.

    Low-precision formulas of the Astronomical Almanac (Michalsky 1988, Solar Energy 40, 227-235), good to 0.1 degree
    from 1950 to 2050. Reckoned and not read from the item, so that it is known for every catalogue, and for a retrace.

    Parameters
    ----------
    when
        A bare time is UTC.
    longitude, latitude
        In degrees, east and north.

    Examples
    --------
    >>> round(sun_zenith_deg(datetime(2020, 6, 20, 12, 0), 0.0, 23.44), 0)
    0.0
    """
    days = (in_utc(when) - datetime(2000, 1, 1, 12, tzinfo=UTC)).total_seconds() / 86_400
    mean_longitude, anomaly = 280.460 + 0.9856474 * days, np.radians(357.528 + 0.9856003 * days)
    ecliptic = np.radians(mean_longitude + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    tilt = np.radians(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(tilt) * np.sin(ecliptic), np.cos(ecliptic))
    declination = np.arcsin(np.sin(tilt) * np.sin(ecliptic))
    sidereal = np.radians(15 * (18.697375 + 24.065709824279 * days) + longitude)  # of the place
    hour_angle, phi = sidereal - ascension, np.radians(latitude)
    height = np.sin(declination) * np.sin(phi) + np.cos(declination) * np.cos(phi) * np.cos(hour_angle)
    return float(np.degrees(np.arccos(np.clip(height, -1, 1))))
