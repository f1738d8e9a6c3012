from rest_framework import serializers
StrictCharField = serializers.CharField
StrictIntegerField = serializers.IntegerField
StrictFloatField = serializers.FloatField
StrictBooleanField = serializers.BooleanField
StrictChoiceField = serializers.ChoiceField
class StrictSerializer(serializers.Serializer):
    pass
class StrictModelSerializer(serializers.ModelSerializer):
    pass
