"""Loads that people start: scenarios, arrivals that wait for nobody, faults by a timetable, a report."""
